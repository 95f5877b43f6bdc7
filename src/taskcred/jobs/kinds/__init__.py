"""The kinds of task: what a task and its parameters become."""
