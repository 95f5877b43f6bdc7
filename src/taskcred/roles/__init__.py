"""The processes of design section 4: a supervisor, and web, keeper and worker, cut by privilege."""
