import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.client.api.schema.GenericObject;
import org.apache.pulsar.common.schema.KeyValue;
import org.apache.pulsar.common.schema.KeyValueEncodingType;
import org.apache.pulsar.functions.api.Context;
import org.apache.pulsar.functions.api.Function;
import org.apache.pulsar.functions.api.Record;
import org.apache.pulsar.functions.api.utils.FunctionRecord.FunctionRecordBuilder;

/** A transform function for a sink: it makes of each item's event one of the things that a function can return, by the item's number. */
public class Various implements Function<GenericObject, Record<Object>> {
    private static final Pattern ITEM = Pattern.compile("item-(\\d+)");

    public static class Id {
        public String pk;
    }

    public static class Key {
        public String pk;
        public int sk;
    }

    public static class Rest {
        public int sk;
        public String made;
    }

    public static class Item {
        public String pk;
        public int sk;
        public String made;
    }

    @Override
    public Record<Object> process(GenericObject input, Context context) {
        Matcher found = ITEM.matcher(new String((byte[]) input.getNativeObject(), StandardCharsets.UTF_8));
        if (!found.find()) {
            throw new IllegalArgumentException("no event of an item");
        }
        int number = Integer.parseInt(found.group(1));
        switch (number) {
            case 0:
                return record(context, Schema.BYTES, input.getNativeObject()).build();
            case 1:
                return null;
            case 2:
                return record(context, Schema.STRING, json("text", number)).build();
            case 3:
                return record(context, Schema.BYTES, json("bytes", number).getBytes(StandardCharsets.UTF_8)).build();
            case 4:
                return record(context, Schema.JSON(Item.class), item("json", number)).build();
            case 5:
                return record(context, Schema.AVRO(Item.class), item("avro", number)).build();
            case 6:
                return pair(context, "apart", number, KeyValueEncodingType.SEPARATED);
            case 7:
                return pair(context, "inline", number, KeyValueEncodingType.INLINE);
            case 8:
                return record(context, Schema.STRING, json("bare", number)).properties(null).build();
            case 9:
                throw new IllegalStateException("nothing is made of 9");
            case 10:
                // Deletes what 2 has become.
                Key key = new Key();
                key.pk = "text-2";
                key.sk = 2;
                Schema<KeyValue<Key, Rest>> tombstone = Schema.KeyValue(Schema.JSON(Key.class), Schema.AVRO(Rest.class), KeyValueEncodingType.SEPARATED);
                return record(context, tombstone, new KeyValue<>(key, null)).build();
            default:
                return record(context, Schema.BYTES, input.getNativeObject()).key("a key").properties(Map.of("by", "Various")).build();
        }
    }

    @SuppressWarnings("unchecked")
    private static FunctionRecordBuilder<Object> record(Context context, Schema<?> schema, Object value) {
        return context.newOutputRecordBuilder((Schema<Object>) schema).value(value);
    }

    private static Record<Object> pair(Context context, String made, int number, KeyValueEncodingType encoding) {
        Id id = new Id();
        id.pk = made + "-" + number;
        Rest rest = new Rest();
        rest.sk = number;
        rest.made = made;
        Schema<KeyValue<Id, Rest>> pair = Schema.KeyValue(Schema.JSON(Id.class), Schema.AVRO(Rest.class), encoding);
        return record(context, pair, new KeyValue<>(id, rest)).build();
    }

    private static String json(String made, int number) {
        return String.format("{\"pk\":\"%s-%d\",\"sk\":%d,\"made\":\"%s\"}", made, number, number, made);
    }

    private static Item item(String made, int number) {
        Item item = new Item();
        item.pk = made + "-" + number;
        item.sk = number;
        item.made = made;
        return item;
    }
}
