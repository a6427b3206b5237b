"""To model a language: the next token of a text."""

from ostinato_learn.hyperparameters import DEFAULT_WINDOW
from ostinato_learn.tasks.base import OF_PARTS, SCHEDULE, MeasureSpec, TaskSpec

TASK = TaskSpec(
    name="language",
    kind="language_model",
    does="Predicts the next token of a text.",
    uses=OF_PARTS | {"task.level", "task.vocabulary"},
    recipe=SCHEDULE
    | {
        "model.cell": "lstm",
        "model.hidden_size": 512,
        "training.learning_rate": 3e-3,
        "training.batch_size": 32,
        "training.epochs": 4.0,
        "training.eval_every": 200,
        "training.truncate": DEFAULT_WINDOW,
    },
    measures={
        "bits_per_character": MeasureSpec("bits per character", lower=True),
        "perplexity": MeasureSpec("perplexity", lower=True),
        "unknown": MeasureSpec("unknown tokens", "%", sided=False),
        "top1": MeasureSpec("next token right", "%"),
        "top3": MeasureSpec("next token among three", "%"),
    },
    built_in=("austen",),
    learnt={"task.level": "fitted.vocabulary.level"},
    drawn=("data.test_fraction", "training.seed"),
    reads_tables=False,
    reads_text=True,
)
