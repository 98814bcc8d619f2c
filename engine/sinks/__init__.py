"""Where results go as they come: webhooks, MQTT and Kafka."""
