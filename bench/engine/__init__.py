"""The main path: plan, craft, judge, record."""
