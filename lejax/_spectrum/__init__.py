"""The Lyapunov spectrum. Read the files in this order:

1. `lyapunov_spectrum`: run the Jacobian-QR loop and report.
2. `sums`: exponents, standard errors and status from the sums of blocks.
3. `report`: the report, `LyapunovSpectrum`, and the error raised for a failed run.
4. `table`, `picture`: the report as text, and in a notebook.
5. `dimension`: Kaplan-Yorke dimension and entropy bound from the exponents.
6. `leave_one_out`, `jackknife`: standard errors of quantities derived from the exponents.
7. `combine`: two consecutive runs as one.
8. `window`: the window of a `WindowedAdjoint` from a spectrum.
"""
