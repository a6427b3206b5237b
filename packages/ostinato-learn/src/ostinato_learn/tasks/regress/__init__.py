"""Regression: one or several numbers for each sequence, and with quantiles their intervals."""

from ostinato_learn.tasks.base import OF_SEQUENCES, SCHEDULE, MeasureSpec, TaskSpec, ruled_out_by

TASK = TaskSpec(
    name="regress",
    kind="sequence_regressor",
    does="Gives a number, or several, to a sequence.",
    uses=OF_SEQUENCES | {"task.loss", "model.readout"},
    recipe=SCHEDULE
    | {
        "model.cell": "gru",
        "model.hidden_size": 64,
        "model.bidirectional": True,
        "training.learning_rate": 4e-3,
    },
    measures={
        "r2": MeasureSpec("R²"),
        "mae": MeasureSpec("mean absolute error", lower=True),
        "rmse": MeasureSpec("root of the mean squared error", lower=True),
        "pinball": MeasureSpec("quantile loss", lower=True),
        "coverage": MeasureSpec("inside the widest interval", "%", sided=False),
        "width": MeasureSpec("mean width of this interval", lower=True, sided=False),
    },
    learnt={"data.missing": "fitted.preparation.missing", "task.loss": "fitted.loss"},
    drawn=("data.test_fraction", "training.seed", "data.group"),
    reads_arrays=True,
    rules_out=ruled_out_by,
    several_targets=True,
)
