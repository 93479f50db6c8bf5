"""What the dashboards are made of, as Grafana 10's JSON has it.

Rules: a panel needs a description for whoever did not build it, a unit, and thresholds; `steps`
without bounds says that no value is good or bad by itself. Panels are laid out from left to right
in the order they are given, 24 columns to a line. Ids follow from the order, so that the JSON
changes only where a board does.

What it does not do: everything that Grafana can. A board that needs more gets it here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "heatmap", "table", "state-timeline"]

COLUMNS = 24
SCHEMA = 38  # of Grafana 10.0; later ones migrate it as they load it
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
# What every query filters by: the variables at the top of a board.
SERVER = 'job="$job",instance=~"$instance"'
MODEL = f'{SERVER},model=~"$model"'
GREEN, YELLOW, RED = "green", "yellow", "red"


class Query(NamedTuple):
    """A PromQL expression, and how its series are called: "{{label}}" stands for a label."""

    expr: str
    legend: str = ""


def rate(counter: str, by: str = "", where: str = MODEL) -> str:
    """Return the sum of a counter's rates; `where`: MODEL or SERVER, and what else has to hold."""
    sums = f"sum by ({by}) " if by else "sum"
    return f"{sums}(rate({counter}{{{where}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "", where: str = MODEL) -> str:
    """Return a quantile of a histogram, read from its buckets."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, where)})"


def shares(counter: str, part: str, whole: str = "") -> str:
    """Return what each `part` label has of a counter's rate, within each `whole` label."""
    labels = f"{whole}, {part}" if whole else part
    return f"{rate(counter, labels)} / ignoring ({part}) group_left () {rate(counter, whole)}"


def steps(*bounds: tuple[float, str], base: str = GREEN) -> list[Json]:
    """Return thresholds: `base` below the first bound, then each colour from its bound on."""
    return [
        {"color": base, "value": None},
        *({"color": color, "value": bound} for bound, color in bounds),
    ]


@dataclass(frozen=True)
class Panel:
    """One panel; `unit` is Grafana's id of it (s, percentunit, reqps, short, bytes …)."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str
    kind: Kind = "timeseries"
    thresholds: Sequence[Json] = field(default_factory=steps)
    width: int = 8
    height: int = 8
    minimum: float | None = 0
    maximum: float | None = None
    stacked: bool = False
    decimals: int | None = None
    mappings: Sequence[tuple[float, str, str]] = ()  # value, text, colour
    hidden: Sequence[str] = ()  # columns that a table leaves out

    def defaults(self) -> Json:
        """Return Grafana's field defaults."""
        values: Json = {
            "unit": self.unit,
            "thresholds": {"mode": "absolute", "steps": list(self.thresholds)},
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            "custom": {},
            "mappings": [
                {"type": "value", "options": {str(value): {"text": text, "color": color}}}
                for value, text, color in self.mappings
            ],
        }
        for name in ("min", "max", "decimals"):
            value = getattr(self, {"min": "minimum", "max": "maximum"}.get(name, name))
            if value is not None:
                values[name] = value
        if self.kind == "timeseries":
            values["custom"] = {
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 8,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "dashed" if len(self.thresholds) > 1 else "off"},
            }
        return values

    def options(self) -> Json:
        """Return Grafana's options of the panel's kind."""
        if self.kind == "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        if self.kind == "stat":
            return {
                "colorMode": "value",
                "graphMode": "area",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "textMode": "auto",
            }
        if self.kind == "heatmap":
            return {
                "calculate": False,
                "cellGap": 0,
                "color": {"mode": "scheme", "scheme": "Blues", "steps": 32},
                "yAxis": {"unit": self.unit},
            }
        if self.kind == "state-timeline":
            return {"mergeValues": True, "showValue": "never", "rowHeight": 0.9}
        return {"showHeader": True}

    def to_json(self, number: int, x: int, y: int) -> Json:
        """Return the panel at a place."""
        instant = self.kind == "table"
        panel: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": self.defaults(), "overrides": []},
            "options": self.options(),
            "targets": [
                {
                    "refId": chr(ord("A") + index),
                    "datasource": SOURCE,
                    "editorMode": "code",
                    "expr": query.expr,
                    "legendFormat": query.legend or "__auto",
                    "range": not instant,
                    "instant": instant,
                    "format": {"table": "table", "heatmap": "heatmap"}.get(
                        self.kind, "time_series"
                    ),
                }
                for index, query in enumerate(self.queries)
            ],
        }
        if instant:
            hidden = dict.fromkeys(("Time", "__name__", "job", *self.hidden), True)
            panel["transformations"] = [
                {"id": "merge", "options": {}},
                {"id": "organize", "options": {"excludeByName": hidden}},
            ]
        return panel


@dataclass(frozen=True)
class Row:
    """A heading and its panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    """One dashboard; its uid, and its file's name, are "scoregate-" and `name`."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    by_model: bool = True

    def to_json(self) -> Json:
        """Return the dashboard as Grafana imports and provisions it."""
        panels: list[Json] = []
        y = 0
        for row in self.rows:
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": "row",
                    "title": row.title,
                    "collapsed": False,
                    "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                    "panels": [],
                }
            )
            y += 1
            x = tallest = 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, tallest = 0, y + tallest, 0
                panels.append(panel.to_json(len(panels) + 1, x, y))
                x, tallest = x + panel.width, max(tallest, panel.height)
            y += tallest
        return {
            "uid": f"scoregate-{self.name}",
            "title": self.title,
            "description": self.description,
            "tags": ["scoregate"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "time": {"from": "now-6h", "to": "now"},
            "refresh": "30s",
            "timezone": "",
            "annotations": {"list": [_plan_changes()]},
            "templating": {"list": _variables(by_model=self.by_model)},
            "links": [
                {
                    "type": "dashboards",
                    "title": "Scoregate",
                    "tags": ["scoregate"],
                    "asDropdown": True,
                    "keepTime": True,
                    "includeVars": True,
                }
            ],
            "panels": panels,
        }


def _plan_changes() -> Json:
    return {
        "name": "Plan changes",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"changes(scoregate_plan_generation{{{SERVER}}}[2m]) > 0",
        "step": "60s",
        "titleFormat": "plan changed",
        "textFormat": "{{instance}}: scoregate history says who and why",
    }


def _variables(*, by_model: bool) -> list[Json]:
    variables: list[Json] = [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
            "hide": 0,
        },
        _label("job", "Job", "label_values(scoregate_plan_generation, job)", many=False),
        _label(
            "instance", "Server", 'label_values(scoregate_plan_generation{job="$job"}, instance)'
        ),
    ]
    if by_model:
        query = f"label_values(ml_predictions_total{{{SERVER}}}, model)"
        variables.append(_label("model", "Model", query))
    return variables


def _label(name: str, label: str, query: str, *, many: bool = True) -> Json:
    variable: Json = {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": many,
        "includeAll": many,
        "current": {"text": "All", "value": "$__all"} if many else {},
    }
    if many:
        variable["allValue"] = ".+"
    return variable
