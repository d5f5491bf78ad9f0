"""A run over the workers of a cluster: each is a run that never publishes, over slices of the plan of this one.

messages.py, transport.py  what the coordinator and a worker say to each other, and how it gets there
slices.py, crew.py, coordinator.py  the run's side: what is given to whom, who is there; adopting.py  what they stored
job.py, same_machine.py, worker_run.py, writer.py, answers.py, worker.py  the worker's side
surroundings.py, ray_transport.py, on_ray.py  Ray
"""
