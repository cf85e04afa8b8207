"""Which stages a target needs, in which order, and what each stands on. Pure."""

from layerstore.build.graph.plan import Base, Plan, PlannedStage, familiar, plan

__all__ = ["Base", "Plan", "PlannedStage", "familiar", "plan"]
