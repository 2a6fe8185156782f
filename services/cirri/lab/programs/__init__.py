"""What runs inside the pods of the lab and on its internet: workloads, not services."""
