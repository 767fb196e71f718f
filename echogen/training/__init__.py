"""Training of an image prior: prepared frames in, a checkpoint with its card out.

What is trained: `config` (recipe), `network`, `loss`, `bound` (learned variance), `augment`.
On what: `data` (frames), `batches`. How: `options`, `machine` (devices), `job`, `run` (set-up),
`loop`, `learner` (a step), `state`. What is seen of it: `evaluation`, `pictures`, `memorisation`,
`figure`, `meter`, `log`, `tell`. What comes out: `checkpoint`, `card`.
"""
