"""Object detectors, one a file, behind the protocol that the judge of GenEval reads."""
