"""What `--preset` stands for: settings by name, as `config` has them."""

from echogen.support.settings import Presets

PRESETS: Presets = {
    "fast": {
        "sampler": {
            "name": "langevin",
            "inner_steps": 1,
            "inner_max": 1.0,
            "churn": 1.5,
            "noise_gain": 1.05,
            "guidance": 1.0,
            "memory": 0.9,
            "refine_steps": 1,
        }
    },
    "balanced": {"sampler": {"name": "langevin"}},
    "high": {
        "sampler": {
            "name": "langevin",
            "levels": 28,
            "inner_max": 0.8,
            "churn": 1.5,
            "noise_gain": 1.05,
            "guidance": 1.0,
            "refine_steps": 6,
        }
    },
    "paper": {
        "transforms": {
            "outside": "inpaint",
            "label_outside": "keep",
            "labels_on_paint": "keep",
            "max_hole": 1.0,
        },
        "sampler": {"name": "repaint", "steps": 250, "jump_length": 10, "resamplings": 10},
    },
}
"""Of `expand`, with a network that is not shown what is known."""


def _completing(steps: int, **refinement: float) -> dict[str, object]:
    return {"name": "dpm", "steps": steps, "sigma_max": 20.0, "rho": 5.0, **refinement}


KNOWN_PRESETS: Presets = {
    "fast": {"sampler": _completing(7, refine_steps=3, refine_from=0.08)},
    "balanced": {"sampler": _completing(10, refine_steps=4, refine_from=0.1, refine_visits=2)},
    "high": {"sampler": _completing(28, refine_steps=4, refine_from=0.12, refine_visits=3)},
    "paper": PRESETS["paper"],
}
"""Of `expand`, with a network that is shown what is known: 10, 18 and 40 evaluations, chosen by
`benchmarks/realism.py --tuning`.
"""

SAMPLE_PRESETS: Presets = {
    "fast": {"sampler": {"steps": 15}},
    "balanced": {},
    "high": {"sampler": {"steps": 40}},
}
"""Of `sample`."""
