"""The training loop, its plan, its callbacks, checkpoints and history."""

from ostinato._extras import needs

with needs("torch", "torch"):
    from ostinato.training.callbacks import Callback, LossFile, MetricsFile, Progress
    from ostinato.training.checkpoint import Checkpoint
    from ostinato.training.distributed import PeerLost
    from ostinato.training.evaluation import Evaluation, evaluate, logits
    from ostinato.training.history import History
    from ostinato.training.loop import train
    from ostinato.training.optimizers import RMSProp
    from ostinato.training.plan import Plan
    from ostinato.training.run import Diverged, Run
    from ostinato.training.schedules import learning_rate

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
