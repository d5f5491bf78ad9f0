"""OpenVINO on the CPU: twice torch's speed, and a start of a third of a second, once a model is converted.

engine.py  the engine; pooling.py  states to vectors; runtime.py  the package's settings, and its traps
conversion.py  where conversions are kept; convert.py  the child process that makes one, with torch
"""
