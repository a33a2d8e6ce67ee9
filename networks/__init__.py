"""The networks, with the parameter names of the published weights, and the factory of them all."""
