"""RestoreFormer and RestoreFormer++."""
