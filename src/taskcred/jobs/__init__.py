"""Jobs: the engine, the catalogue of tasks, isolation, the launcher, the kinds of task, the worker."""
