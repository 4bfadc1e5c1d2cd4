return post(9)
