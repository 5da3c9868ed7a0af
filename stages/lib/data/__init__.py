"""GSM8K, AILuminate and the authored rows, from wherever they are kept, as checked rows. For prepare."""
