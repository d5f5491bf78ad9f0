"""SGLang, held by a process of its own.

engine.py  the engine; settings.py  what SGLang is started with; process.py  our side of the host
guard.py, host.py, scheduler.py  the host's processes; wire.py  the frames between them
models/, forward.py, kernels.py  our forward pass, in SGLang's scheduler
"""
