"""From token ids to unit vectors.

choose.py  which engine; contract.py  what every engine promises; torch_engine.py, sglang/, several_cards.py  engines
feeder.py, recovery.py, second_look.py  batches, restarts, checks; probe.py  is it the same model; nvml.py  the cards
"""
