"""Many slides on many machines: Dask brings the workers, each slide is one process of ``inference.py`` on one of them.

- ``tasks``: the slides of a list, and the folder of outputs of each
- ``finished``: what tells that a slide is finished, with the same settings
- ``connection``: workers on this machine, or a scheduler's
- ``schedule``: which worker predicts which slide; what fails is tried again on another
- ``on_worker``: what a worker runs: the check of its paths, and one slide
- ``supervisor``: the process between a worker and ``inference.py``, which never outlives the worker
- ``table``: ``cohort.csv``, a row per slide
"""
