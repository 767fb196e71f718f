"""Training of an image prior: packed frames in, a checkpoint's network out.

`config` names every setting, `data` holds frames in memory, `augment` varies them without leaking,
`loss` is the objective and its held-out measure, `loop` trains, `samples` shows what it learnt.
"""
