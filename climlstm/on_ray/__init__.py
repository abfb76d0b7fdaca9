"""All that imports Ray: clusters, tasks, training, jobs, tuning."""
