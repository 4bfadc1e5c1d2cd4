return post(8)
