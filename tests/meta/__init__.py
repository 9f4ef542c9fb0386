"""Tests of the house itself: its floors, packaging, budgets and command."""
