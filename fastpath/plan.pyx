"""The serving plan: everything that an answer depends on, immutable, swapped in one store.

Rules
-----
* A plan is built off to the side from loaded models, compiled schemas, thresholds and bucket
  tables; a plan that cannot be built raises, and what serves is untouched.
* Publishing is one pointer store. A loop reads the pointer at the start of an iteration and holds
  the plan until the iteration ends; all rows that arrive in an iteration see one plan. A row that
  waits for a store keeps its plan until it is answered.
* A replaced plan is freed when no loop and no waiting row holds it any more.
* A plan names its batch tables: a new generation of one is a new plan.

How reclamation works: hazard pointers (Michael, "Hazard Pointers: Safe Memory Reclamation for
Lock-Free Objects", 2004). A loop writes the plan that it is about to use into its own slot and
then checks that it is still the published one; a publisher swaps the pointer and then looks at all
slots. With sequential consistency one of the two sees the other. Plans of waiting rows stand in a
second, small list of the thread, written before the slot is cleared and therefore read after it. A
loop that sleeps holds nothing else, so nobody has to be woken for a plan to be freed.

What it does not do: load models, decide weights, or keep history. That is the control plane's.
"""

import threading
import time
from typing import NamedTuple

from fastpath import ledger
from fastpath.answer import encode_arm
from fastpath.errors import PlanError, SchemaError
from fastpath.spec import describe_difference, layout_fingerprint

from fastpath._types cimport (
    LINK_IDENTITY,
    LINK_LOGIT,
    SCORE_PROBABILITY,
    SCORE_VALUE,
)
from fastpath.c.atomic cimport (
    __ATOMIC_RELAXED,
    __ATOMIC_RELEASE,
    __ATOMIC_SEQ_CST,
    exchange_pointer,
    load_pointer,
    store_i32,
    store_pointer,
)
from fastpath.model cimport Model
from fastpath.record cimport RecordGather, record_layout_t
from fastpath.routing cimport BucketTable, hash_of
from fastpath.schema cimport Gather, Schema
from fastpath.store cimport BatchTable

from libc.stdlib cimport free
from libc.string cimport memcmp, memset
from posix.stdlib cimport posix_memalign

LINKS = {"logit": LINK_LOGIT, "identity": LINK_IDENTITY}
SCORE_KINDS = {"probability": SCORE_PROBABILITY, "value": SCORE_VALUE}


class PlanArm(NamedTuple):
    """One version of a model as a plan serves it."""

    name: str                        # "champion", "canary"
    version: str
    sha256: bytes                    # of the bundle's manifest
    model: object                    # fastpath.model.Model
    schema: object                   # fastpath.schema.Schema
    slot: int                        # Metrics.register(...)
    link: str = "logit"
    prior_shift: float = 0.0         # log-odds
    score_kind: str = "probability"
    thresholds: tuple = ()           # (name, raw score) ascending
    default_decision: str = "approve"
    explore_share: float = 0.0       # of the strictest decisions: answered with the default one


class PlanModel(NamedTuple):
    """One model as a plan serves it."""

    name: str
    arms: tuple                      # PlanArm, in the order of the table's indexes
    table: object                    # fastpath.routing.BucketTable
    routing_entity: str = ""
    description: bytes = b""         # an encoded GetModelResponse
    layouts: tuple = ()              # further layouts to accept: tuples of (name, type)
    overrides: dict = {}             # routing key -> index of the arm that it is pinned to
    former_layouts: tuple = ()       # of versions that do not serve: accepted where they can be


cdef const plan_t* pin(board_t* board, int thread) noexcept nogil:
    cdef void* plan
    cdef void** mine = &board.hazards[thread].plan
    while True:
        plan = load_pointer(&board.published, __ATOMIC_SEQ_CST)
        store_pointer(mine, plan, __ATOMIC_SEQ_CST)
        if load_pointer(&board.published, __ATOMIC_SEQ_CST) == plan:
            return <const plan_t*> plan


cdef void unpin(board_t* board, int thread) noexcept nogil:
    store_pointer(&board.hazards[thread].plan, NULL, __ATOMIC_RELEASE)


cdef int32_t find_hold(const board_t* board, int thread, const plan_t* plan) noexcept nogil:
    cdef int32_t free_place = -1
    cdef int32_t i
    for i in range(MAX_HELD):
        if board.hazards[thread].held[i] == <const void*> plan:
            return i
        if board.hazards[thread].held[i] is NULL:
            free_place = i
    return free_place


cdef void hold(board_t* board, int thread, int32_t place, const plan_t* plan) noexcept nogil:
    store_pointer(&board.hazards[thread].held[place], <void*> plan, __ATOMIC_SEQ_CST)


cdef void unhold(board_t* board, int thread, int32_t place) noexcept nogil:
    store_pointer(&board.hazards[thread].held[place], NULL, __ATOMIC_RELEASE)


cdef int32_t find_model(const plan_t* plan, const uint8_t* name, size_t size) noexcept nogil:
    cdef int32_t i
    if size == 0:
        return plan.default_model
    for i in range(plan.n_models):
        if plan.models[i].name.size == size:
            if memcmp(plan.models[i].name.data, name, size) == 0:
                return i
    return -1


cdef class Plan:
    """A compiled serving plan.

    Parameters
    ----------
    generation : int
        64 bits, grows with every change, never reused.
    models : sequence of PlanModel
    default_model : str, optional
        Which model a request without a name gets; the first by default.
    batch : mapping of str to BatchTable, optional
        Batch records by group; a group that is not named has none.

    Raises
    ------
    PlanError
        A name, weight, threshold or schema does not fit; the message names model and arm.
    """

    def __cinit__(self, generation, models, default_model=None, batch=None):
        cdef plan_model_t* compiled
        names = [model.name for model in models]
        if not names:
            raise PlanError("a plan needs at least one model")
        if len(set(names)) != len(names):
            raise PlanError(f"model names must differ; got {', '.join(names)}")
        if default_model is None:
            default_model = names[0]
        if default_model not in names:
            raise PlanError(
                f"the default model {default_model!r} is not in the plan: {', '.join(names)}"
            )
        self._owners = []
        self.models = tuple(models)
        self.batch = dict(batch or {})
        self._record_columns = _record_columns(self.models)
        compiled = <plan_model_t*> self._own(len(names) * sizeof(plan_model_t))
        self.table.generation = generation
        self.table.n_models = len(names)
        self.table.default_model = names.index(default_model)
        self.table.models = compiled
        for index, model in enumerate(self.models):
            self._compile_model(&compiled[index], model)

    @property
    def generation(self):
        """The plan's generation number."""
        return self.table.generation

    @property
    def default_model(self):
        """Name of the model that a request without a name gets."""
        return self.models[self.table.default_model].name

    # Memory for C structs lives in bytearrays that the plan keeps: nothing to free by hand.
    cdef void* _own(self, size_t size_bytes) except NULL:
        memory = bytearray(max(size_bytes, 1))
        self._owners.append(memory)
        return <void*> <char*> memory

    cdef span_t _span(self, bytes text) except *:
        cdef span_t span
        self._owners.append(text)
        span.data = <const uint8_t*> text
        span.size = len(text)
        return span

    cdef int _compile_model(self, plan_model_t* out, model) except -1:
        cdef arm_t* arms
        cdef BucketTable table = model.table
        if not model.name:
            raise PlanError("a model needs a name")
        if not 1 <= len(model.arms) <= 255:
            raise PlanError(f"model {model.name}: 1 to 255 arms, not {len(model.arms)}")
        if table.n_arms > len(model.arms):
            raise PlanError(
                f"model {model.name}: its bucket table sends traffic to arm {table.n_arms - 1}, "
                f"but there are {len(model.arms)} arms"
            )
        _check_vocabularies(model)
        layouts = _layouts(model)
        self._owners.append(table)
        arms = <arm_t*> self._own(len(model.arms) * sizeof(arm_t))
        for index, arm in enumerate(model.arms):
            self._compile_arm(&arms[index], model.name, arm, layouts)
            arms[index].index = <uint8_t> index
        out.name = self._span(model.name.encode())
        out.routing_entity = self._span(model.routing_entity.encode())
        out.description = self._span(model.description)
        out.n_arms = len(model.arms)
        out.arms = arms
        out.table = &table.table
        return self._compile_overrides(out, model)

    cdef int _compile_overrides(self, plan_model_t* out, model) except -1:
        cdef override_t* overrides = <override_t*> self._own(
            len(model.overrides) * sizeof(override_t)
        )
        cdef uint32_t size = 4
        cdef uint32_t n_bits = 64
        cdef uint32_t slot, bit
        cdef uint32_t* table
        cdef uint64_t* bits
        while size < 2 * len(model.overrides):
            size *= 2
        # Nearly every look-up is of a key that is not pinned: a bit says so of 15 in 16, from two
        # bytes for each that is, which stay in the nearest cache where the table would not.
        while n_bits < 16 * len(model.overrides):
            n_bits *= 2
        table = <uint32_t*> self._own(size * sizeof(uint32_t))
        bits = <uint64_t*> self._own(n_bits // 8)
        for index, (key, arm) in enumerate(model.overrides.items()):
            if not 0 <= arm < len(model.arms):
                raise PlanError(
                    f"model {model.name}: key {key!r} is pinned to arm {arm}, but there are "
                    f"{len(model.arms)}"
                )
            overrides[index].key = self._span(key.encode())
            overrides[index].arm = arm
            overrides[index].hash = hash_of(
                out.table, overrides[index].key.data, overrides[index].key.size
            )
            bit = <uint32_t> (overrides[index].hash >> 32) & (n_bits - 1)
            bits[bit >> 6] |= (<uint64_t> 1) << (bit & 63)
            slot = <uint32_t> overrides[index].hash & (size - 1)
            while table[slot] != 0:
                slot = (slot + 1) & (size - 1)
            table[slot] = index + 1
        out.n_overrides = len(model.overrides)
        out.overrides = overrides
        out.override_table = table
        out.override_mask = size - 1
        out.override_bits = bits
        out.override_bits_mask = n_bits - 1
        return 0

    cdef int _compile_arm(self, arm_t* out, str name, arm, layouts) except -1:
        cdef Model model = arm.model
        cdef Schema schema = arm.schema
        cdef float* cuts
        cdef span_t* decisions
        where = f"model {name}, version {arm.version}, arm {arm.name}"
        if model.table.score_rows is NULL:
            raise PlanError(f"{where}: the model has no engine")
        if model.n_features != schema.table.n_features:
            raise PlanError(
                f"{where}: the model takes {model.n_features} features, "
                f"the schema has {schema.table.n_features}"
            )
        if arm.link not in LINKS:
            raise PlanError(f"{where}: link {arm.link!r} is not one of {', '.join(LINKS)}")
        if arm.score_kind not in SCORE_KINDS:
            raise PlanError(
                f"{where}: score kind {arm.score_kind!r} is not one of {', '.join(SCORE_KINDS)}"
            )
        values = [float(raw) for _, raw in arm.thresholds]
        if any(value != value for value in values) or values != sorted(set(values)):
            raise PlanError(f"{where}: thresholds must ascend and differ; got {values}")
        self._owners += [model, schema]
        out.model = model.table
        out.schema = &schema.table
        out.link = LINKS[arm.link]
        out.score_kind = SCORE_KINDS[arm.score_kind]
        out.prior_shift = arm.prior_shift
        if not 0.0 <= arm.explore_share <= ledger.MAX_EXPLORE_SHARE:
            raise PlanError(
                f"{where}: explore_share is {arm.explore_share}; it must be 0 to "
                f"{ledger.MAX_EXPLORE_SHARE}"
            )
        out.explore_share = arm.explore_share
        out.explore_limit = ledger.share_limit(arm.explore_share)
        out.slot = arm.slot
        out.generation = self.table.generation
        out.title = self._span(f"{name} {arm.version}".encode())
        out.encoded = self._span(
            encode_arm(
                name, arm.version, arm.sha256, arm.name, self.table.generation, out.score_kind
            )
        )
        self._compile_gathers(out, where, schema, layouts)
        self._compile_groups(out, where, schema)
        cuts = <float*> self._own(len(values) * sizeof(float))
        decisions = <span_t*> self._own((len(values) + 1) * sizeof(span_t))
        decisions[0] = self._span(arm.default_decision.encode())
        for index, (decision, raw) in enumerate(arm.thresholds):
            cuts[index] = raw
            decisions[index + 1] = self._span(decision.encode())
        out.n_thresholds = len(values)
        out.cuts = cuts
        out.decisions = decisions
        return 0

    cdef int _compile_gathers(self, arm_t* out, str where, Schema schema, layouts) except -1:
        """Map every layout by name; a former one that does not fit becomes a refusal in words."""
        cdef Gather gather
        cdef gather_t* gathers = <gather_t*> self._own(len(layouts) * sizeof(gather_t))
        cdef refusal_t* refusals = <refusal_t*> self._own(len(layouts) * sizeof(refusal_t))
        # The schema's own layout first: it is what nearly every client sends.
        for layout in sorted(layouts, key=lambda layout: layout.columns != schema.columns):
            try:
                gather = Gather(schema, layout.columns)
            except SchemaError as error:
                if not layout.is_former:
                    raise PlanError(f"{where}: {error}") from error
                refusals[out.n_refusals].fingerprint = layout_fingerprint(layout.columns)
                # Of the two layouts that clients of this schema use, the one it came closest to.
                refusals[out.n_refusals].text = self._span(
                    min(
                        [
                            describe_difference(layout.columns, columns)
                            for columns in (schema.columns, schema.request_columns)
                        ],
                        key=len,
                    ).encode()
                )
                out.n_refusals += 1
                continue
            self._owners.append(gather)
            gathers[out.n_gathers] = gather.table
            out.n_gathers += 1
        out.gathers = gathers
        out.refusals = refusals
        return 0

    cdef int _compile_groups(self, arm_t* out, str where, Schema schema) except -1:
        """Map every record layout that the plan's schemas declare, and find the batch tables."""
        cdef RecordGather gather
        cdef BatchTable table
        cdef arm_group_t* groups
        cdef record_layout_t* layouts
        groups = <arm_group_t*> self._own(len(schema.groups) * sizeof(arm_group_t))
        for index, group in enumerate(schema.groups):
            known = self._record_columns[group.name]
            layouts = <record_layout_t*> self._own(len(known) * sizeof(record_layout_t))
            groups[index].group = &schema.table.groups[index]
            # The arm's own first: it is what most records are.
            for columns in sorted(known, key=lambda columns: columns != group.columns):
                try:
                    gather = RecordGather(schema, index, columns)
                except SchemaError as error:
                    raise PlanError(f"{where}: {error}") from error
                self._owners.append(gather)
                layouts[groups[index].n_layouts] = gather.table
                groups[index].n_layouts += 1
            groups[index].layouts = layouts
            table = self.batch.get(group.name) if group.batch else None
            if table is not None:
                self._owners.append(table)
                groups[index].batch = &table.table
        out.n_groups = len(schema.groups)
        out.groups = groups
        return 0


class _Layout(NamedTuple):
    columns: tuple
    is_former: bool


def _layouts(model):
    """Every layout that requests for a model may use, each once; those that serve first."""
    known = {}
    for arm in model.arms:
        known[arm.schema.columns] = False
        if arm.schema.groups:
            known[arm.schema.request_columns] = False
    for columns in model.layouts:
        known[tuple(columns)] = False
    for columns in model.former_layouts:
        known.setdefault(tuple(columns), True)
    # A schema whose features are all stored has a request layout without columns.
    return [_Layout(columns, is_former) for columns, is_former in known.items() if columns]


def _record_columns(models):
    """Every record layout of every group, by group: all models share the records."""
    known = {}
    for model in models:
        for arm in model.arms:
            for group in arm.schema.groups:
                layouts = known.setdefault(group.name, [])
                if group.columns not in layouts:
                    layouts.append(group.columns)
    return known


def _check_vocabularies(model):
    """Refuse arms that give one categorical feature different codes.

    A dense request sends codes, and a layout's fingerprint covers names and types only: the same
    code would mean another value at another arm, and nothing would notice.
    """
    seen = {}
    for arm in model.arms:
        for spec in arm.schema.specs:
            if spec.type != "categorical":
                continue
            vocabulary, version = seen.setdefault(spec.name, (spec.vocabulary, arm.version))
            if vocabulary != spec.vocabulary:
                raise PlanError(
                    f"model {model.name}: versions {version} and {arm.version} have different "
                    f"vocabularies for {spec.name!r}; export one with the other's vocabulary, "
                    f"or give the feature a new name"
                )


cdef class PlanBoard:
    """Where the loops find the plan that serves now.

    Publishing is thread-safe. Every method needs the GIL; the loops' side needs none.
    """

    def __cinit__(self):
        cdef void* memory = NULL
        if posix_memalign(&memory, 64, sizeof(board_t)) != 0:
            raise MemoryError()
        memset(memory, 0, sizeof(board_t))
        self.board = <board_t*> memory
        self._lock = threading.Lock()
        self._published = None
        self._retired = []

    def __dealloc__(self):
        # Engines keep a reference to their board, so no loop can still read it here.
        free(self.board)

    @property
    def published(self):
        """The Plan that serves now, or None."""
        return self._published

    def publish(self, Plan plan not None):
        """Make a plan the serving one; returns the plan that it replaced, or None.

        The loops use it from their next iteration on. Answers of the old plan may still be on
        their way: `wait_retired` says when there are none.

        Raises
        ------
        PlanError
            The generation is not above the published one's.
        """
        cdef Plan old
        with self._lock:
            old = self._published
            if old is not None and plan.table.generation <= old.table.generation:
                raise PlanError(
                    f"generation {plan.table.generation} is not above the serving plan's "
                    f"{old.table.generation}"
                )
            self._published = plan
            if old is not None:
                self._retired.append(old)
            exchange_pointer(&self.board.published, <void*> &plan.table, __ATOMIC_SEQ_CST)
        return old

    def reclaim(self):
        """Let go of replaced plans that no loop holds; returns how many are still held."""
        cdef Plan plan
        with self._lock:
            kept = []
            for plan in self._retired:
                if self._is_held(plan):
                    kept.append(plan)
            self._retired = kept
            return len(kept)

    def wait_retired(self, double timeout_s):
        """Wait until every replaced plan has answered its last call; False on time-out."""
        deadline = time.monotonic() + timeout_s
        while self.reclaim():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        return True

    def set_serving(self, bint serving):
        """Set what the health service says: SERVING, or NOT_SERVING while starting or draining."""
        store_i32(&self.board.serving, serving, __ATOMIC_RELAXED)

    cdef bint _is_held(self, Plan plan):
        cdef int i
        cdef int j
        cdef void* table = <void*> &plan.table
        for i in range(MAX_LOOPS):
            if load_pointer(&self.board.hazards[i].plan, __ATOMIC_SEQ_CST) == table:
                return True
            # After the slot: a row's hold is written before its thread clears it.
            for j in range(MAX_HELD):
                if load_pointer(&self.board.hazards[i].held[j], __ATOMIC_SEQ_CST) == table:
                    return True
        return False
