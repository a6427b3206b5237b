"""To tag: a label for each step of a sequence."""

from ostinato_learn.tasks.base import OF_SEQUENCES, SCHEDULE, MeasureSpec, TaskSpec, ruled_out_by

TASK = TaskSpec(
    name="tag",
    kind="sequence_tagger",
    does="Gives a label to every step of a sequence.",
    uses=OF_SEQUENCES | {"task.crf", "training.window", "data.test_time"},
    recipe=SCHEDULE
    | {
        "model.cell": "lstm",
        "model.hidden_size": 128,
        "model.bidirectional": True,
        "training.learning_rate": 4e-3,
    },
    measures={
        "accuracy": MeasureSpec("accuracy of a step's label", "%"),
        "f1": MeasureSpec("F1 of spans", "%"),
        "loss": MeasureSpec("loss per step", lower=True),
    },
    learnt={"data.missing": "fitted.preparation.missing", "task.crf": "net.crf"},
    drawn=("data.test_time", "data.test_fraction", "training.seed", "data.group"),
    rules_out=ruled_out_by,
)
