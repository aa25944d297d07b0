"""A benchmark: eight times smaller, two references."""

TINY = {
    "degradation": {"sigma": [0, 0], "scale": [8, 8], "noise": [0, 0], "jpeg": [90, 90]},
    "split": "test",
    "references": 2,
}
