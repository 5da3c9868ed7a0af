"""Any task of lm-evaluation-harness, before and after the tuning (`make panel TASKS=arc_easy,ifeval`)."""
