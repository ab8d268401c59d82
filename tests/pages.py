"""Plain values of runs for the tests of the report page."""

BAD = "</script><img src=x onerror=\"document.title='changed'\">'&"


def run_of(*, rate=0.1, best=0.8, epochs=3):
    """Return the bundle of a run that an early stop ended, with logged steps and a confusion matrix."""
    counts = [[8.0, 2.0], [1.0, 9.0]]
    last = 10 * epochs
    rows = [
        {"epoch": e, "steps": 10 * (e + 1), "loss": 1 / (e + 1), "accuracy": 0.5, "val_loss": 0.9, "val_accuracy": best}
        | {"seconds": 1.5, "examples": 80, "examples_per_second": 53.0, "confusion": counts, "val_confusion": counts}
        for e in range(epochs)
    ]
    evaluations = [
        {"epoch": row["epoch"], "step": row["steps"], "val_loss": 0.9, "val_accuracy": best, "batches": 2}
        | {"monitor_value": best, "improved": row["steps"] == last, "stale": 0, "checkpoint": "runs/a.safetensors"}
        for row in rows
    ]
    steps = [
        {"step": s, "epoch": (s - 1) // 10, "loss": 1 / s, "learning_rate": rate, "grad_norm": 10.0 ** (s % 5)}
        | {"rows_per_second": 100.0 + s, "tokens_per_second": None, "peak_memory": 1_000_000 + s}
        for s in range(1, min(last, 100) + 1)
    ]
    options = {"epochs": 9, "seed": 0, "sync": "async"}
    setup = {"optimizer": "adam", "train": "data", "validation": {"": "data"}, "options": options}
    report = {"rows": rows, "evaluations": evaluations, "steps": steps, "losses": [], "monitor_name": "val_accuracy"}
    report |= {"monitor_mode": "max", "best_value": best, "best_epoch": epochs - 1, "best_step": last}
    report |= {"epochs_target": 9, "steps_target": None, "epochs_completed": epochs, "stopped_early": True}
    report |= {"stop_reason": "no improvement in 3 evaluations", "checkpoints": ["runs/a.safetensors"]}
    layer = {"path": "head", "name": "Linear", "shapes": {"weight": [2, 4]}, "count": 8, "trainable": 8}
    report |= {"setup": setup | {"changed": ["epochs"]}, "model": {"rows": [layer], "count": 8, "trainable": 8}}
    environment = {"mlx_fp": "0.1.0", "python": "3.11", "blas": None}
    return {"report": report, "settings": {"rate": rate}, "environment": environment, "user": {}, "checkpoint": None}


def hostile():
    """Return a bundle with hostile names, text from right to left, and figures that are not finite."""
    bundle = run_of()
    report = bundle["report"]
    for i, row in enumerate(report["rows"]):
        row |= {BAD: i * 1e-9, "שלום": [float("inf"), float("-inf"), 1e308][i % 3]}
    for i, each in enumerate(report["evaluations"]):
        each[f"val_{BAD}"] = float("nan") if i == 1 else 0.5
    for i, step in enumerate(report["steps"]):
        step |= {"loss": float("nan"), "grad_norm": float("inf")} if i % 7 == 3 else {}
    report |= {"stop_reason": BAD + "\x1b\ud800", "checkpoints": [BAD * 9], "monitor_name": f"val_{BAD}"}
    return {**bundle, "settings": {BAD: BAD, "مرحبا": "x" * 400}, "user": {BAD: [BAD, float("nan")]}}
