"""Training of an image prior: prepared frames in, a checkpoint with its card out.

What is trained: `recipe`, `learner` (network, average, optimiser), `loss`, `augment`. On what:
`frames`, prepared by `preparation` and kept by `frame_folder`; `batches`. How: `options`,
`machine` (devices), `session` (set-up), `loop`, `state`, `run_folder`. What is seen of it:
`evaluation`, `pictures`, `memorisation`, `meter`, `log`. What comes out: `checkpoint`, `card`.
Commands, and what knows a store, do not belong here.
"""
