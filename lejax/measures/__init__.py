"""How well a reconstructed system agrees with the true one: state space, spectrum, prediction."""
