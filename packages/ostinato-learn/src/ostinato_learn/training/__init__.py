"""The training loop, its plan, its callbacks, checkpoints and history."""

from ostinato.internal import needs

with needs("ostinato-learn[torch]", "torch"):
    from ostinato_learn.training.callbacks import Callback, LossFile, MetricsFile, Progress
    from ostinato_learn.training.checkpoint import Checkpoint
    from ostinato_learn.training.distributed import PeerLost
    from ostinato_learn.training.evaluation import Evaluation, evaluate, logits
    from ostinato_learn.training.history import History
    from ostinato_learn.training.loop import train
    from ostinato_learn.training.optimizers import RMSProp
    from ostinato_learn.training.plan import Plan
    from ostinato_learn.training.run import Diverged, Run
    from ostinato_learn.training.schedules import learning_rate

__all__ = [
    "Callback",
    "Checkpoint",
    "Diverged",
    "Evaluation",
    "History",
    "LossFile",
    "MetricsFile",
    "PeerLost",
    "Plan",
    "Progress",
    "RMSProp",
    "Run",
    "evaluate",
    "learning_rate",
    "logits",
    "train",
]
