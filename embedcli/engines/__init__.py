"""From token ids to unit vectors.

choose.py  which engine; contract.py  what every engine promises; engines: torch_engine.py,
openvino/, sglang/, several_cards.py
feeder.py, feeder_thread.py, feeder_state.py  batches in, answers out; recovery.py  after a death
second_look.py  which vectors are sound; probe.py  is it the same model; nvml.py  the cards
query.py  the vectors of queries
"""
