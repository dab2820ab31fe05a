"""The views: the contract for SQL, DuckDB, Datasette and pandas. Columns are only ever added, at the end; a test
freezes them. They show finished and imported runs.

v_units       one row per unit, its label. A unit without a label (dead, saturated, non-finite or meeting nothing)
              has concept and category NULL and iou, intersection, unit_area and concept_area 0. threshold is NULL
              where it is not finite. precision, recall and f1 come from the integers; phi and iqr are NULL where the
              convention's counts are no table of pixels, ap where too few images hold the concept.
v_best_label  the rows of v_units that are detectors: iou > the layer's cut.
v_concepts    one row per layer and concept: in how many units it is the label, how many of them are detectors, and
              the best unit among all pairs (NULL where no unit meets the concept).
"""

_RATIO = "CAST({part} AS DOUBLE PRECISION) / NULLIF({whole}, 0)"
_MEASURES = {
    "precision": _RATIO.format(part="s.intersection", whole="s.unit_area"),
    "recall": _RATIO.format(part="s.intersection", whole="s.concept_area"),
    "f1": _RATIO.format(part="2 * s.intersection", whole="(s.unit_area + s.concept_area)"),
}

V_UNITS = """
SELECT r.id AS run, r.name AS run_name, l.name AS layer, u.unit AS unit, c.name AS concept, k.name AS category,
       u.iou AS iou, COALESCE(s.intersection, 0) AS intersection, COALESCE(s.unit_area, 0) AS unit_area,
       COALESCE(s.concept_area, 0) AS concept_area, u.threshold AS threshold, 1 AS rank,
       u.dead AS dead, u.saturated AS saturated,
       CASE WHEN u.nonfinite > 0 THEN 1 ELSE 0 END AS nonfinite, s.iou_low AS iou_low, s.iou_high AS iou_high,
       u.stability AS stability, u.p_value AS p_value, u.q_value AS q_value, u.iou_null AS iou_null,
       COALESCE({precision}, 0) AS precision, COALESCE({recall}, 0) AS recall, COALESCE({f1}, 0) AS f1,
       s.phi AS phi, s.iqr AS iqr, s.ap AS ap
FROM runs r
JOIN layers l ON l.run_id = r.id
JOIN units u ON u.layer_id = l.id
LEFT JOIN scores s ON s.layer_id = u.layer_id AND s.unit = u.unit AND s.rank = 1 AND u.label IS NOT NULL
LEFT JOIN concepts c ON c.run_id = r.id AND c.number = u.label
LEFT JOIN categories k ON k.run_id = r.id AND k."index" = c.category
WHERE r.state IN ('finished', 'imported')
"""

V_BEST_LABEL = """
SELECT r.id AS run, r.name AS run_name, l.name AS layer, u.unit AS unit, c.name AS concept, k.name AS category,
       u.iou AS iou, s.intersection AS intersection, s.unit_area AS unit_area, s.concept_area AS concept_area,
       u.threshold AS threshold, s.iou_low AS iou_low, s.iou_high AS iou_high, u.stability AS stability,
       u.p_value AS p_value, u.q_value AS q_value, u.iou_null AS iou_null, {precision} AS precision,
       {recall} AS recall, {f1} AS f1, s.phi AS phi, s.iqr AS iqr, s.ap AS ap
FROM runs r
JOIN layers l ON l.run_id = r.id
JOIN units u ON u.layer_id = l.id
JOIN scores s ON s.layer_id = u.layer_id AND s.unit = u.unit AND s.rank = 1
JOIN concepts c ON c.run_id = r.id AND c.number = u.label
JOIN categories k ON k.run_id = r.id AND k."index" = c.category
WHERE r.state IN ('finished', 'imported') AND u.iou > l.cut
"""

V_CONCEPTS = """
SELECT r.id AS run, r.name AS run_name, l.name AS layer, c.name AS concept, k.name AS category, c.area AS area,
       c.images AS images,
       (SELECT COUNT(*) FROM units u WHERE u.layer_id = l.id AND u.label = c.number) AS units,
       (SELECT COUNT(*) FROM units u WHERE u.layer_id = l.id AND u.label = c.number AND u.iou > l.cut) AS detectors,
       s.iou AS best_iou, s.unit AS best_unit
FROM runs r
JOIN layers l ON l.run_id = r.id
JOIN concepts c ON c.run_id = r.id
JOIN categories k ON k.run_id = r.id AND k."index" = c.category
LEFT JOIN scores s ON s.layer_id = l.id AND s.concept = c.number AND s.concept_rank = 1
WHERE r.state IN ('finished', 'imported') AND c.name IS NOT NULL
"""

VIEWS = {
    "v_units": V_UNITS.format(**_MEASURES),
    "v_best_label": V_BEST_LABEL.format(**_MEASURES),
    "v_concepts": V_CONCEPTS,
}
