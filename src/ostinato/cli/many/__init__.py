"""Many runs: workers, trials, and the comparison of runs."""
