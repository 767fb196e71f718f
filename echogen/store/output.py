"""The store that a command makes: begun, continued, published, replaced.

A command's store grows in the working store (`working_store_path`), which is the output itself but
for HDF5. Whatever lies there is another's until `check` says that it is this run's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echogen.errors import StoreError
from echogen.report import Reporter
from echogen.store.disk import disk_errors
from echogen.store.hdf5 import convert_to_h5, working_store_path
from echogen.store.opening import check_replaceable, open_store, remove_store
from echogen.store.reader import StoreReader
from echogen.store.record import StoreRecord
from echogen.store.schema import GIVE_ONE, SHARD_SIZE, Status
from echogen.store.writer import StoreWriter
from echogen.store.zarr_store import create_store, resume_store
from echogen.support.files import clear_leftovers
from echogen.support.lock import store_lock


@contextmanager
def own_output(path: Path) -> Iterator[None]:
    """Hold the lock of the output at `path`, without what killed commands left beside it.

    Raises:
        StoreError: another process holds it, or the disk refuses.
    """
    with store_lock(path):
        with disk_errors(path, 0):
            for place in dict.fromkeys((path, working_store_path(path))):
                clear_leftovers(place)
        yield


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse, before any work, an output that is not an echogen store or cannot be read.

    Raises:
        StoreError: as said.
    """
    try:
        if overwrite:
            check_replaceable(path)
            return
        for place in {path, working_store_path(path)}:
            if place.exists():
                open_store(place).close()
    except StoreError as error:
        said = str(error)
        if not said.endswith(GIVE_ONE):
            raise
        left = "It is left as it is: choose another --out."
        raise StoreError(said.removesuffix(GIVE_ONE) + left) from error


@dataclass(frozen=True)
class StoreOutput:
    """The place of a store that a run makes; use it under `own_output`.

    Attributes:
        path: `.zarr` or `.h5`.
        check: raises `StoreError` for a store that another run made.
    """

    path: Path
    check: Callable[[StoreReader], None]

    @property
    def working(self) -> Path:
        """Where the store grows."""
        return working_store_path(self.path)

    def finished(self) -> bool:
        """Whether the store is there and complete; a working store that a kill left is removed.

        Raises:
            StoreError: another run's store is there.
        """
        if not self.path.exists():
            return False
        with open_store(self.path) as store:
            self.check(store)
            if not store.complete:
                return False
        self._remove_working()
        return True

    def left(self) -> frozenset[int] | None:
        """The rows that this run would still make of a store that is there; None of none.

        Raises:
            StoreError: another run's store is there.
        """
        for place in dict.fromkeys((self.path, self.working)):
            if place.exists():
                with open_store(place) as store:
                    self.check(store)
                    pending = store.columns["status"] == Status.PENDING
                return frozenset(pending.nonzero()[0].tolist())
        return None

    def begun(self) -> StoreRecord | None:
        """The record of this run's store where it was begun and not finished."""
        if not self.working.exists():
            return None
        try:
            with open_store(self.working) as store:
                self.check(store)
                return None if store.complete else store.record
        except StoreError:
            return None

    def replace(self) -> None:
        """Remove what is there, unless this run was begun: then that has been done before.

        Raises:
            StoreError: what is there is not an echogen store, or the disk refuses.
        """
        if self.begun() is None:
            remove_store(self.path)

    def resume(self) -> StoreWriter | None:
        """The store to go on with; None where nothing is there.

        Raises:
            StoreError: another run's store is there, or it is damaged.
        """
        if not self.working.exists():
            return None
        with open_store(self.working) as store:
            self.check(store)
        return resume_store(self.working)

    def publish(self, writer: StoreWriter, reporter: Reporter) -> None:
        """Mark the store complete and put it in its place: for HDF5, in one atomic step.

        Raises:
            StoreError: rows are pending, or the disk is full or refuses.
        """
        writer.set_complete()
        if self.working != self.path:
            reporter.tell(f"writing {self.path}")
            convert_to_h5(self.working, self.path)
        self._remove_working()

    def _remove_working(self) -> None:
        if self.working != self.path:
            remove_store(self.working)


def create_part(
    path: Path, source: StoreReader, rows: Sequence[int], attrs: Mapping[str, Any]
) -> StoreWriter:
    """Create a store for rows of another one, with what was planned of them and their cases.

    Args:
        path: of the new Zarr store.
        source: opened for reading.
        rows: of `source`, rising.
        attrs: the root attribute, see `create_store`.

    Raises:
        StoreError: `source` is damaged, `path` exists, or the disk refuses.
    """
    columns = {c.name: source.columns[c.name][rows] for c in source.layout.planned}
    cases, whole = set(columns["case_id"].tolist()), len(rows) == len(source)
    return create_store(
        path,
        attrs=attrs,
        columns=columns,
        cases=[case for case in source.case_rows if whole or case["id"] in cases],
        problems=source.skipped,
        image_shape=source.image_shape,
        shard_size=source.record.config.store.shard_size or SHARD_SIZE,
    )
