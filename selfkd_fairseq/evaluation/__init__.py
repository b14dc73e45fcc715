"""What a trained model is worth: reading what fairseq wrote, and scores by sacreBLEU."""
