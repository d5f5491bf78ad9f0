"""SGLang as an engine, in processes of its own.

engine.py  the engine; settings.py  SGLang's arguments; process.py  our side of the host
guard.py, host.py, scheduler.py  the host's processes; wire.py  the frames between us and the host
models/, forward.py, kernels.py  our forward pass, in SGLang's scheduler
"""
