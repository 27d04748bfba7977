"""The Lyapunov spectrum: the verb, its report, and what follows from exponents and their errors."""
