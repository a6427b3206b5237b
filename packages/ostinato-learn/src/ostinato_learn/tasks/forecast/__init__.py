"""To forecast: the next values of series, as quantiles."""

from ostinato_learn.tasks.base import OF_TABLES, SCHEDULE, MeasureSpec, TaskSpec

# The recipe was compared with others on validation windows.
TASK = TaskSpec(
    name="forecast",
    kind="sequence_forecaster",
    does="Forecasts the next values of a series.",
    uses=OF_TABLES
    | {
        "data.static",
        "data.known",
        "data.missing",
        "task.horizon",
        "task.context",
        "task.season",
        "task.bounds",
        "model.bidirectional",
    },
    recipe=SCHEDULE
    | {
        "data.missing": "forward",
        "model.cell": "gru",
        "model.hidden_size": 64,
        "training.learning_rate": 2e-3,
        "training.batch_size": 64,
        "training.iterations": 1000,
        "training.eval_every": 50,
    },
    measures={
        "mase": MeasureSpec("MASE", lower=True),
        "wql": MeasureSpec("weighted quantile loss", lower=True),
        "mae": MeasureSpec("mean absolute error", lower=True),
        "coverage_80": MeasureSpec("inside the 80 % interval", "%", sided=False),
    },
    learnt={
        "task.horizon": "net.horizon",
        "task.context": "fitted.context",
        "task.season": "fitted.season",
    },
    drawn=("task.horizon",),
)
