package org.apache.pulsar.io.dynamodb;

import java.io.DataInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Semaphore;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.schema.GenericObject;
import org.apache.pulsar.common.io.SinkConfig;
import org.apache.pulsar.common.schema.SchemaInfo;
import org.apache.pulsar.common.schema.SchemaType;
import org.apache.pulsar.functions.api.Record;
import org.apache.pulsar.io.core.Sink;
import org.apache.pulsar.io.core.SinkContext;

/** Writes the messages of topics with any schema to a DynamoDB table. */
public class DynamoDBSink implements Sink<GenericObject> {
    private static final int MESSAGE_COST = 1024;

    /** What the process has not answered. */
    private final Map<Long, Pending> pending = new ConcurrentHashMap<>();
    private final Set<Object> schemas = new HashSet<>();
    private final Map<SchemaInfo, byte[]> transformed = new HashMap<>();
    private boolean transforms;
    private NativeProcess process;
    private Semaphore room;
    private long lastId;

    private record Pending(Record<GenericObject> message, int cost) { }

    @Override
    public void open(Map<String, Object> configs, SinkContext context) throws Exception {
        SinkConfig connector = context.getSinkConfig();
        transforms = connector.getTransformFunctionClassName() != null;
        process = new NativeProcess("sink", connector, configs, connector.getSecrets(), context, this::answered);
        room = new Semaphore(process.credit);
    }

    private void answered(int type, DataInputStream ids) throws IOException {
        if (type != Frames.ACK && type != Frames.FAIL) {
            throw new IOException("a frame of the unknown type " + type + ": use the executable of the same archive");
        }
        while (ids.available() > 0) {
            Pending answered = pending.remove(ids.readLong());
            room.release(answered.cost);
            if (type == Frames.ACK) {
                answered.message.ack();
            } else {
                answered.message.fail();
            }
        }
    }

    @Override
    public void write(Record<GenericObject> record) throws Exception {
        Message<?> message = (transforms ? Content.input(record) : record).getMessage().orElseThrow();
        Content content = transforms ? Content.transformed(record, message, transformed) : Content.of(message);
        // What a Key_Shared subscription goes by, whatever a function makes of the key.
        byte[] stickyKey = transforms && message.hasKey() ? message.getKeyBytes() : null;
        int cost = Math.min(process.credit, MESSAGE_COST + Math.max(content.size(), message.size()));
        room.acquire(cost);
        tellSchema(message.getTopicName(), content);
        long id = ++lastId;
        pending.put(id, new Pending(record, cost));
        process.say(Frames.MESSAGE, frame -> {
            frame.writeLong(id);
            Frames.put(frame, message.getMessageId().toByteArray());
            frame.writeLong(message.getPublishTime());
            frame.writeLong(content.eventTime() > 0 ? content.eventTime() : -1);
            Frames.put(frame, message.getTopicName());
            Frames.put(frame, content.key());
            frame.writeBoolean(content.binaryKey());
            Frames.put(frame, message.hasOrderingKey() ? message.getOrderingKey() : stickyKey);
            Frames.put(frame, content.schemaVersion());
            Frames.put(frame, message.getProducerName());
            frame.writeLong(message.getSequenceId());
            Frames.put(frame, content.properties());
            Frames.put(frame, content.value());
        });
    }

    /** Once, before the first message that was written with it. */
    private void tellSchema(String topic, Content content) {
        byte[] version = content.schemaVersion();
        if (version == null || !schemas.add(List.of(topic, ByteBuffer.wrap(version)))) {
            return;
        }
        SchemaInfo info = content.schema().get();
        process.say(Frames.SCHEMA, frame -> {
            Frames.put(frame, topic);
            Frames.put(frame, version);
            Frames.put(frame, (info == null ? SchemaType.NONE : info.getType()).name());
            Frames.put(frame, info == null ? null : info.getSchema());
            Frames.put(frame, info == null ? Map.of() : info.getProperties());
        });
    }

    @Override
    public void close() {
        if (process != null) {
            process.stop();
            process.close();
        }
    }
}
