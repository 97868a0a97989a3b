// relu_attention
