"""To classify: one label for each sequence, or several."""

from ostinato_learn.tasks.base import OF_SEQUENCES, SCHEDULE, MeasureSpec, TaskSpec, ruled_out_by

# The recipe was compared with others by cross-validation on a training part
# (benchmarks/results/tasks.md).
TASK = TaskSpec(
    name="classify",
    kind="sequence_classifier",
    does="Gives a class to a sequence.",
    uses=OF_SEQUENCES
    | {"data.as_sequence", "model.init", "model.readout", "training.class_weight"},
    recipe=SCHEDULE
    | {
        "model.cell": "gru",
        "model.hidden_size": 64,
        "model.bidirectional": True,
        "model.dropout": 0.3,
        "training.learning_rate": 4e-3,
    },
    measures={
        "label_accuracy": MeasureSpec("labels right", "%"),  # if a sequence may have several
        "accuracy": MeasureSpec("accuracy", "%"),
        "f1": MeasureSpec("F1 of labels", "%"),
        "loss": MeasureSpec("loss", lower=True),
    },
    built_in=("mnist", "vowels"),
    learnt={"data.missing": "fitted.preparation.missing"},
    drawn=("data.test_fraction", "training.seed", "data.group"),
    reads_arrays=True,
    rules_out=ruled_out_by,
    several_targets=True,
)
