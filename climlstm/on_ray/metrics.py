"""Numbers of a run among Ray's own metrics, which its dashboard and Prometheus show."""

from climlstm.errors import missing_extra
from climlstm.training.progress import Observe, Record
from climlstm.training.tracking import scalars

try:
    from ray.util.metrics import Gauge
except ImportError as error:
    raise missing_extra("Metrics in Ray's dashboard", "ray", error) from error


def gauges(run: str) -> Observe:
    """An observer that sets a gauge `climlstm_train_loss` and so on for each number of a record.

    Only a process that belongs to a Ray cluster can have it. Gauges carry the tag `run`.
    """
    made: dict[str, Gauge] = {}

    def observe(record: Record) -> None:
        for name, value in [*scalars(record), ("step", float(record["step"]))]:
            title = "climlstm_" + name.replace("/", "_")
            if title not in made:
                made[title] = Gauge(title, description=f"climlstm: {name}", tag_keys=("run",))
            made[title].set(value, tags={"run": run})

    return observe
