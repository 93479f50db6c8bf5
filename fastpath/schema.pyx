"""Compiled feature schemas, and how an arm reads rows of another schema's layout.

`Schema` turns checked specs into plain C (`schema_t`): features in model order, open-addressing
tables from names to features and from vocabulary texts to codes, the rules of all features side by
side for vector passes, the groups that stored features come from, and the limits on falling back.
`Gather` maps the columns of one layout onto a schema's features by name. Both are immutable, own
all their memory, and must outlive whoever holds a pointer to their tables (the plan keeps them).

Ages are whole milliseconds here, budgets nanoseconds; "no limit" is the type's largest value.

Does not read files, does not resolve requests (`features`) and does not read records (`record`).
"""

from fastpath.errors import SchemaError
from fastpath.spec import (
    ON_RANGE_CODES,
    TYPE_CODES,
    FallbackLimits,
    FeatureSpec,
    GroupSpec,
    check_columns,
    check_specs,
    group_fingerprint,
    layout_fingerprint,
)

from libc.float cimport FLT_MAX
from libc.math cimport isinf, isnan, llround
from libc.stdint cimport INT64_MAX, int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from fastpath._types cimport (
    FEATURE_BOOLEAN,
    FEATURE_CATEGORICAL,
    FEATURE_NUMERIC,
    MAX_FEATURES,
    span_t,
)
from fastpath.hashing cimport hash_bytes

__all__ = ["FallbackLimits", "FeatureSpec", "Gather", "GroupSpec", "Schema", "layout_fingerprint"]

# Any constant: the keys of these tables are chosen by whoever made the bundle, not by callers,
# so a look-up probes a bounded run whatever the caller asks for.
cdef uint64_t TABLE_SEED = 0x5C04E6A7E


cdef inline span_t span_of(bytes text) noexcept:
    cdef span_t span
    span.data = <const uint8_t*> <const char*> text
    span.size = len(text)
    return span


cdef uint32_t table_mask(Py_ssize_t n_keys) noexcept:
    """Size minus one of a table that stays at most half full."""
    cdef uint32_t size = 4
    while <Py_ssize_t> size < 2 * n_keys:
        size *= 2
    return size - 1


cdef void insert(uint32_t* table, uint32_t mask, span_t key, uint32_t entry) noexcept nogil:
    cdef uint32_t slot = hash_bytes(key.data, key.size, TABLE_SEED) & mask
    while table[slot] != 0:
        slot = (slot + 1) & mask
    table[slot] = entry


cdef int32_t find_feature(const schema_t* schema, const uint8_t* name, size_t size) noexcept nogil:
    cdef uint32_t slot = hash_bytes(name, size, TABLE_SEED) & schema.name_mask
    cdef uint32_t entry = schema.name_table[slot]
    cdef const span_t* key
    while entry != 0:
        key = &schema.features[entry - 1].name
        if key.size == size and memcmp(key.data, name, size) == 0:
            return <int32_t> entry - 1
        slot = (slot + 1) & schema.name_mask
        entry = schema.name_table[slot]
    return -1


cdef int32_t find_code(const feature_t* feature, const uint8_t* text, size_t size) noexcept nogil:
    cdef uint32_t slot = hash_bytes(text, size, TABLE_SEED) & feature.vocabulary_mask
    cdef uint32_t entry = feature.vocabulary_table[slot]
    cdef const span_t* key
    while entry != 0:
        key = &feature.vocabulary[entry - 1]
        if key.size == size and (size == 0 or memcmp(key.data, text, size) == 0):
            return <int32_t> entry - 1
        slot = (slot + 1) & feature.vocabulary_mask
        entry = feature.vocabulary_table[slot]
    return -1


cdef void* allocate(size_t n, size_t size) except NULL:
    cdef void* memory = calloc(n if n > 0 else 1, size)
    if memory is NULL:
        raise MemoryError(f"a schema table of {n * size} bytes")
    return memory


cdef int compile_feature(
    schema_t* table, Py_ssize_t j, object spec, bytes name, tuple vocabulary
) except -1:
    cdef feature_t* feature = &table.features[j]
    cdef Py_ssize_t code
    feature.name = span_of(name)
    feature.type = TYPE_CODES[spec.type]
    feature.required = bool(spec.required)
    feature.on_range = ON_RANGE_CODES[spec.on_range]
    feature.group = -1
    table.has_rules |= feature.on_range != ON_RANGE_MISSING
    # A C conversion from double to float rounds to nearest, as `spec.to_float32` does.
    feature.default_value = <float> <double> spec.default
    feature.minimum = <float> <double> spec.minimum
    feature.maximum = <float> <double> spec.maximum
    insert(table.name_table, table.name_mask, feature.name, <uint32_t> j + 1)
    if feature.type == FEATURE_NUMERIC:
        table.lowest[j] = -FLT_MAX if isinf(feature.minimum) else feature.minimum
        table.highest[j] = FLT_MAX if isinf(feature.maximum) else feature.maximum
        return 0
    table.discrete[table.n_discrete] = <int32_t> j
    table.n_discrete += 1
    table.lowest[j] = 0
    table.highest[j] = 1
    if feature.type == FEATURE_BOOLEAN:
        return 0
    table.highest[j] = <float> (len(vocabulary) - 1)
    feature.vocabulary = <span_t*> allocate(len(vocabulary), sizeof(span_t))
    feature.vocabulary_mask = table_mask(len(vocabulary))
    feature.vocabulary_table = <uint32_t*> allocate(
        feature.vocabulary_mask + 1, sizeof(uint32_t)
    )
    for code in range(len(vocabulary)):
        feature.vocabulary[code] = span_of(vocabulary[code])
        insert(
            feature.vocabulary_table, feature.vocabulary_mask, feature.vocabulary[code],
            <uint32_t> code + 1,
        )
    feature.n_vocabulary = <int32_t> len(vocabulary)
    return 0


cdef int64_t to_ms(double age_s) noexcept:
    """Whole milliseconds of an age; INT64_MAX for one that no clock reaches."""
    # 2**53 ms: beyond it a double no longer holds every whole number; 285,000 years.
    return llround(age_s * 1e3) if age_s < 9007199254740.992 else INT64_MAX


cdef int compile_group(
    schema_t* table, Py_ssize_t g, object spec, tuple texts, tuple features
) except -1:
    """Fill one group and point its members at it."""
    cdef group_t* group = &table.groups[g]
    cdef int32_t* members
    cdef int64_t* ttl_ms
    cdef Py_ssize_t i
    cdef int32_t j
    group.name = span_of(texts[0])
    group.entity = span_of(texts[1])
    group.role = span_of(texts[2])
    group.fingerprint = group_fingerprint(spec.name, spec.columns)
    group.has_online = bool(spec.online)
    group.has_batch = bool(spec.batch)
    group.batch_max_age_ms = to_ms(spec.batch_max_age_s)
    group.budget_ns = <int64_t> spec.read_budget_us * 1000
    mine = [j for j in range(len(features)) if features[j].source == spec.name]
    members = <int32_t*> allocate(len(mine), sizeof(int32_t))
    group.members = members
    ttl_ms = <int64_t*> allocate(len(mine), sizeof(int64_t))
    group.ttl_ms = ttl_ms
    group.n_members = <int32_t> len(mine)
    for i in range(len(mine)):
        j = mine[i]
        members[i] = j
        ttl_ms[i] = to_ms(spec.ttl_s if isnan(features[j].ttl_s) else features[j].ttl_s)
        table.features[j].group = <int8_t> g
    return 0


cdef int compile_limits(schema_t* table, object limits, tuple features) except -1:
    cdef fallback_limits_t* out = &table.limits
    cdef uint8_t* degrades = <uint8_t*> allocate(table.n_features, 1)
    cdef uint8_t* rejects
    cdef int32_t j
    out.degrades = degrades
    rejects = <uint8_t*> allocate(table.n_features, 1)
    out.rejects = rejects
    for j in range(table.n_features):
        degrades[j] = features[j].name in limits.degrade_features
        rejects[j] = features[j].name in limits.reject_features
    out.degrade_over = to_count(limits.degrade_over)
    out.reject_over = to_count(limits.reject_over)
    table.has_limits = limits != FallbackLimits()
    return 0


cdef int32_t to_count(object over) except -1:
    return MAX_FEATURES if over is None else min(over, MAX_FEATURES)


cdef class Schema:
    """The compiled schema of one model.

    Parameters
    ----------
    specs : iterable of FeatureSpec
        In the model's order, 1 to 1024.
    groups : iterable of GroupSpec, optional
        Every group that a feature's source names.
    limits : FallbackLimits, optional

    Attributes
    ----------
    specs : tuple of FeatureSpec
    groups : tuple of GroupSpec
    limits : FallbackLimits

    Raises
    ------
    SchemaError
        The specs contradict themselves; the message names the feature or the group.
    """

    # Not __init__: it could run twice, or never, and the tables would change or lack.
    def __cinit__(self, specs, groups=(), limits=None):
        cdef tuple checked = tuple(specs)
        cdef Py_ssize_t n = len(checked)
        cdef Py_ssize_t j
        self.groups = tuple(
            group._replace(columns=tuple((name, kind) for name, kind in group.columns))
            for group in groups
        )
        self.limits = FallbackLimits() if limits is None else limits
        check_specs(checked, self.groups, self.limits)
        self.specs = checked
        names = tuple(spec.name.encode() for spec in checked)
        vocabularies = tuple(tuple(v.encode() for v in spec.vocabulary) for spec in checked)
        keys = tuple((g.name.encode(), g.entity.encode(), g.role.encode()) for g in self.groups)
        self.texts = (names, vocabularies, keys)
        self.table.fingerprint = layout_fingerprint(self.columns)
        self.table.features = <feature_t*> allocate(n, sizeof(feature_t))
        self.table.n_features = <int32_t> n
        self.table.lowest = <float*> allocate(n, sizeof(float))
        self.table.highest = <float*> allocate(n, sizeof(float))
        self.table.discrete = <int32_t*> allocate(n, sizeof(int32_t))
        self.table.name_mask = table_mask(n)
        self.table.name_table = <uint32_t*> allocate(self.table.name_mask + 1, sizeof(uint32_t))
        for j in range(n):
            compile_feature(&self.table, j, checked[j], names[j], vocabularies[j])
        self.table.groups = <group_t*> allocate(len(self.groups), sizeof(group_t))
        self.table.n_groups = <int32_t> len(self.groups)
        for j in range(self.table.n_groups):
            compile_group(&self.table, j, self.groups[j], keys[j], checked)
        compile_limits(&self.table, self.limits, checked)

    def __dealloc__(self):
        cdef int32_t j
        for j in range(self.table.n_features):
            free(self.table.features[j].vocabulary)
            free(self.table.features[j].vocabulary_table)
        for j in range(self.table.n_groups):
            free(<void*> self.table.groups[j].members)
            free(<void*> self.table.groups[j].ttl_ms)
        free(self.table.groups)
        free(<void*> self.table.limits.degrades)
        free(<void*> self.table.limits.rejects)
        free(self.table.features)
        free(self.table.name_table)
        free(self.table.lowest)
        free(self.table.highest)
        free(self.table.discrete)

    def __repr__(self):
        return f"<Schema {self.fingerprint:#018x}, {self.n_features} features>"

    @property
    def n_features(self):
        """Number of features: the width of a resolved row."""
        return self.table.n_features

    @property
    def fingerprint(self):
        """Fingerprint of the schema's own layout, 0 to 2**64 - 1."""
        return self.table.fingerprint

    @property
    def columns(self):
        """The schema's own layout: a tuple of (name, type)."""
        return tuple((spec.name, spec.type) for spec in self.specs)

    @property
    def request_columns(self):
        """The layout without stored features, which a client may send instead of the own one.

        A tuple of (name, type); empty where every feature is stored.
        """
        return tuple((spec.name, spec.type) for spec in self.specs if not spec.is_stored)

    def compiled_groups(self):
        """Return the compiled groups as plain values: for tests and tools.

        Returns
        -------
        list of dict
            `members` and `ttl_ms` side by side, `batch_max_age_ms`, `budget_ns`, `fingerprint`,
            `has_online`, `has_batch`, and the three texts that a read needs.
        """
        cdef const group_t* group
        cdef int32_t g
        cdef int32_t i
        found = []
        for g in range(self.table.n_groups):
            group = &self.table.groups[g]
            found.append({
                "key": (group.name.data[:group.name.size], group.entity.data[:group.entity.size],
                        group.role.data[:group.role.size]),
                "fingerprint": group.fingerprint,
                "has_online": bool(group.has_online),
                "has_batch": bool(group.has_batch),
                "batch_max_age_ms": group.batch_max_age_ms,
                "budget_ns": group.budget_ns,
                "members": [group.members[i] for i in range(group.n_members)],
                "ttl_ms": [group.ttl_ms[i] for i in range(group.n_members)],
            })
        return found

    def compiled_rules(self):
        """Return the compiled rules as plain values: for tests and tools.

        Returns
        -------
        dict
            Of every feature `group` and `on_range` (lists of int) and whether its fallback alone
            `degrades` or `rejects` (lists of int); `degrade_over`, `reject_over`, `has_limits`,
            `has_rules`.
        """
        cdef int32_t j
        cdef int32_t n = self.table.n_features
        return {
            "group": [self.table.features[j].group for j in range(n)],
            "on_range": [self.table.features[j].on_range for j in range(n)],
            "degrades": [self.table.limits.degrades[j] for j in range(n)],
            "rejects": [self.table.limits.rejects[j] for j in range(n)],
            "degrade_over": self.table.limits.degrade_over,
            "reject_over": self.table.limits.reject_over,
            "has_limits": bool(self.table.has_limits),
            "has_rules": bool(self.table.has_rules),
        }

    def index(self, str name not None):
        """Return the index of a feature, or -1: the serving path's own look-up."""
        cdef bytes text = name.encode()
        return find_feature(&self.table, <const uint8_t*> <const char*> text, len(text))

    def code(self, int feature, str text not None):
        """Return the code of a categorical value, or -1: the serving path's own look-up.

        Raises
        ------
        SchemaError
            There is no such feature, or it is not categorical.
        """
        cdef bytes value = text.encode()
        if not 0 <= feature < self.table.n_features:
            raise SchemaError(f"feature {feature}: the schema has {self.table.n_features}")
        if self.table.features[feature].type != FEATURE_CATEGORICAL:
            raise SchemaError(f"feature {self.specs[feature].name!r} is not categorical")
        return find_code(
            &self.table.features[feature], <const uint8_t*> <const char*> value, len(value)
        )


cdef int32_t find_column(Gather gather, object spec, dict at) except -2:
    column = at.get(spec.name, -1)
    if column == -1:
        # Whether a stored feature is there is known when its record was read, not before.
        if spec.required and not spec.is_stored:
            raise SchemaError(
                f"layout {gather.table.fingerprint:#018x} lacks the required feature "
                f"{spec.name!r}: make it optional, or retire the model with that layout"
            )
        return -1
    kind = gather.columns[column][1]
    if kind != spec.type:
        raise SchemaError(
            f"layout {gather.table.fingerprint:#018x} has feature {spec.name!r} as {kind}, the "
            f"schema as {spec.type}: rename one of the two"
        )
    return column


cdef class Gather:
    """Where a schema finds its features in the rows of one layout.

    Parameters
    ----------
    schema : Schema
        Of the arm that scores the rows. Kept alive.
    columns : iterable of (name, type)
        The layout, in the order of a dense request's values. It may hold columns that the
        schema does not know: they are not read.

    Attributes
    ----------
    schema : Schema
    columns : tuple of (name, type)

    Raises
    ------
    SchemaError
        The layout lacks a required feature that no group stores, or has a feature under another
        type, or is itself inconsistent. The message names the feature.
    """

    def __cinit__(self, Schema schema not None, columns):
        cdef Py_ssize_t j
        layout = tuple((name, kind) for name, kind in columns)
        check_columns(layout)
        self.schema = schema
        self.columns = layout
        self.column = <int32_t*> allocate(schema.table.n_features, sizeof(int32_t))
        self.table.column = self.column
        self.table.fingerprint = layout_fingerprint(layout)
        self.table.n_columns = <int32_t> len(layout)
        self.table.identity = layout == schema.columns
        at = {name: index for index, (name, _) in enumerate(layout)}
        for j in range(schema.table.n_features):
            self.column[j] = find_column(self, schema.specs[j], at)

    def __dealloc__(self):
        free(self.column)

    def __repr__(self):
        return f"<Gather {self.fingerprint:#018x} to {self.schema!r}>"

    @property
    def fingerprint(self):
        """Fingerprint of the layout that is read."""
        return self.table.fingerprint

    @property
    def n_columns(self):
        """Number of values that a dense request of this layout must hold."""
        return self.table.n_columns

    @property
    def identity(self):
        """Whether the layout is the schema's own, in the same order."""
        return bool(self.table.identity)

    @property
    def column_of(self):
        """Column of each feature, or -1 where the layout lacks it: a list of n_features."""
        return [self.column[j] for j in range(self.schema.table.n_features)]
