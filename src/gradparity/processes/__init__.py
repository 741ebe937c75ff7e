"""Code that runs in other processes: a user's loop in a sandbox, or a training on several ranks.

In reading order: ``device`` (makes a process ready for a GPU, or hides it), ``fork_server``, ``sandbox`` (one process
that may hang or crash), ``launch`` (one process for each rank), ``failed_ranks`` (which rank failed first, and why),
``collective_guard`` (all ranks go on, or none), ``user_frames`` (the line of the user's code where something happened).
"""
