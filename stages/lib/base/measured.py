"""What is measured."""

# MLCommons AILuminate v1.0 hazard codes (its taxonomy), in the order of its assessment standard.
HAZARDS = {
    "vcr": "Violent crimes",
    "ncr": "Non-violent crimes",
    "src": "Sex-related crimes",
    "cse": "Child sexual exploitation",
    "dfm": "Defamation",
    "spc_ele": "Specialized advice: elections",
    "spc_fin": "Specialized advice: financial",
    "spc_hlt": "Specialized advice: health",
    "spc_lgl": "Specialized advice: legal",
    "prv": "Privacy",
    "ipv": "Intellectual property",
    "iwp": "Indiscriminate weapons",
    "hte": "Hate",
    "ssh": "Suicide and self-harm",
    "sxc_prn": "Sexual content",
}
