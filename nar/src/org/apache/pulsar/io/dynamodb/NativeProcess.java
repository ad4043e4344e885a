package org.apache.pulsar.io.dynamodb;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.functions.api.BaseContext;
import org.slf4j.Logger;

/** The native process that does the work: started, talked to, watched, started again, and ended with its owner. */
final class NativeProcess {
    static final String PATH_VARIABLE = "PULSAR_IO_DYNAMODB_NATIVE_PATH";
    private static final long SILENCE_MS = Long.getLong("pulsar.io.dynamodb.silence.ms", 60_000);
    private static final int RESTARTS = 5;
    private static final int EXIT_CONFIGURATION = 64;
    private static final int LAST_LINES = 20;

    /** What comes from the process; called by one thread. */
    interface Handler {
        /** A process is there, the first one or another. What is put into {@code out} goes to this one. */
        void started(int credit, BlockingQueue<byte[]> out);

        void frame(int type, DataInputStream body) throws Exception;

        /** It is over. */
        void failed(Exception why);
    }

    private final Map<String, Object> open;
    private final BaseContext context;
    private final Logger log;
    private final Handler handler;
    private final boolean restarts;
    private final CompletableFuture<Void> ready = new CompletableFuture<>();
    private final Deque<String> lastLines = new ArrayDeque<>();
    private volatile boolean closing;
    private volatile Process process;
    private volatile BlockingQueue<byte[]> out;
    private volatile boolean listening;
    private volatile long heard;
    private String lastWords;

    /** Starts it; errors with its own words where it does not come up. */
    NativeProcess(Map<String, Object> open, BaseContext context, boolean restarts, Handler handler) throws Exception {
        this.open = open;
        this.context = context;
        this.log = context.getLogger();
        this.handler = handler;
        this.restarts = restarts;
        daemon("supervisor", this::supervise);
        daemon("watch", this::watch);
        try {
            ready.get(SILENCE_MS, TimeUnit.MILLISECONDS);
        } catch (ExecutionException e) {
            throw (Exception) e.getCause();
        } catch (Exception e) {
            close();
            throw e;
        }
    }

    private static Thread daemon(String name, Runnable work) {
        Thread thread = new Thread(work, "dynamodb-" + name);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    private void supervise() {
        for (int attempt = 0;; attempt++) {
            long began = System.nanoTime();
            Exception death = serve();
            if (closing) {
                return;
            }
            boolean first = ready.completeExceptionally(death);
            attempt = System.nanoTime() - began > TimeUnit.MINUTES.toNanos(1) ? 0 : attempt;
            boolean mistaken = process != null && !process.isAlive() && process.exitValue() == EXIT_CONFIGURATION;
            if (first || mistaken || !restarts || attempt == RESTARTS) {
                handler.failed(death);
                return;
            }
            log.warn("{}; starting it again in {} s", death.getMessage(), 1 << attempt);
            context.recordMetric("restarts", 1);
            try {
                TimeUnit.SECONDS.sleep(1L << attempt);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    /** One life of the process. Returns how it ended. */
    private Exception serve() {
        Thread errors = null;
        lastWords = null;
        process = null;
        String problem;
        try {
            Process started = start();
            process = started;
            heard = System.nanoTime();
            errors = daemon("log", () -> log(started));
            BlockingQueue<byte[]> queue = new LinkedBlockingQueue<>();
            out = queue;
            queue.add(new byte[] {Frames.VERSION});
            queue.add(Frames.frame(Frames.OPEN, body -> body.write(Frames.json(open).getBytes(StandardCharsets.UTF_8))));
            daemon("writer", () -> write(started, queue));
            problem = listen(started, queue);
        } catch (Exception e) {
            problem = e.toString();
        }
        if (process != null) {
            process.destroyForcibly();
            try {
                process.waitFor();
                errors.join(1_000);
            } catch (InterruptedException | NullPointerException e) {
                log.debug("not waited for", e);
            }
        }
        String why = lastWords != null ? lastWords : problem + (process == null ? "" : ", exit code " + process.exitValue()) + lines();
        return new IOException("The DynamoDB connector's native process has ended: " + why);
    }

    private String listen(Process started, BlockingQueue<byte[]> queue) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(started.getInputStream(), 1 << 16));
        try {
            listening = true;
            int version = in.readUnsignedByte();
            if (version != Frames.VERSION) {
                return "it speaks version " + version + " of the frame protocol, this archive speaks " + Frames.VERSION
                        + ": use the executable of the same archive";
            }
            while (true) {
                listening = true;
                byte[] frame = in.readNBytes(in.readInt());
                listening = false;
                heard = System.nanoTime();
                DataInputStream body = new DataInputStream(new ByteArrayInputStream(frame));
                int type = body.readUnsignedByte();
                if (type == Frames.READY) {
                    handler.started(body.readInt(), queue);
                    ready.complete(null);
                } else if (type == Frames.METRICS) {
                    for (int left = body.readInt(); left > 0; left--) {
                        context.recordMetric(Frames.text(body), body.readDouble());
                    }
                } else if (type == Frames.ERROR) {
                    lastWords = Frames.text(body);
                } else {
                    handler.frame(type, body);
                }
            }
        } catch (EOFException e) {
            return silent() ? "it gave no sign of life for " + SILENCE_MS / 1000 + " s" : "it closed its output";
        }
    }

    private void write(Process started, BlockingQueue<byte[]> queue) {
        try (OutputStream to = new BufferedOutputStream(started.getOutputStream(), 1 << 16)) {
            while (started.isAlive()) {
                byte[] next = queue.poll(1, TimeUnit.SECONDS);
                for (; next != null; next = queue.poll()) {
                    to.write(next);
                }
                to.flush();
            }
        } catch (IOException | InterruptedException e) {
            log.debug("the native process takes nothing more", e);
        }
    }

    private void log(Process started) {
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(started.getErrorStream(), StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                synchronized (lastLines) {
                    lastLines.addLast(line);
                    if (lastLines.size() > LAST_LINES) {
                        lastLines.removeFirst();
                    }
                }
                String[] parts = line.trim().split("\\s+", 3);
                String level = parts.length == 3 ? parts[1] : "";
                switch (level) {
                    case "ERROR" -> log.error(parts[2]);
                    case "WARN" -> log.warn(parts[2]);
                    case "INFO" -> log.info(parts[2]);
                    case "DEBUG", "TRACE" -> log.debug(parts[2]);
                    default -> log.info(line);
                }
            }
        } catch (IOException e) {
            log.debug("the native process says nothing more", e);
        }
    }

    private String lines() {
        synchronized (lastLines) {
            return lastLines.isEmpty() ? "" : "; its last lines:\n" + String.join("\n", lastLines);
        }
    }

    /** Nothing was heard although somebody listened. */
    private boolean silent() {
        return listening && System.nanoTime() - heard > TimeUnit.MILLISECONDS.toNanos(SILENCE_MS);
    }

    private void watch() {
        while (!closing) {
            try {
                TimeUnit.SECONDS.sleep(1);
            } catch (InterruptedException e) {
                return;
            }
            Process watched = process;
            if (watched != null && silent()) {
                watched.destroyForcibly();
            }
        }
    }

    private Process start() throws IOException, InterruptedException {
        ProcessBuilder command = new ProcessBuilder(executable().getPath(), "bridge");
        for (int attempt = 0;; attempt++) {
            try {
                return command.start();
            } catch (IOException e) {
                // Text file busy: another process was started while the file was written.
                if (attempt == 20 || !String.valueOf(e.getMessage()).contains("error=26")) {
                    throw e;
                }
                TimeUnit.MILLISECONDS.sleep(50);
            }
        }
    }

    /** Pulsar unpacks an archive without the executable's permission. */
    private static File executable() throws IOException {
        String own = System.getenv(PATH_VARIABLE);
        if (own != null && !own.isBlank()) {
            return new File(own);
        }
        String arch = Map.of("x86_64", "amd64", "aarch64", "arm64").getOrDefault(System.getProperty("os.arch"), System.getProperty("os.arch"));
        String name = "native/linux-" + arch + "/pulsar-io-dynamodb";
        URL found = NativeProcess.class.getClassLoader().getResource(name);
        if (found == null) {
            throw new IOException("the archive has no " + name + "; set " + PATH_VARIABLE + " to an executable for this machine");
        }
        File inPlace = new File(found.getPath());
        if (found.getProtocol().equals("file") && (inPlace.canExecute() || inPlace.setExecutable(true, false))) {
            return inPlace;
        }
        Path copy = Files.createTempFile("pulsar-io-dynamodb", "");
        copy.toFile().deleteOnExit();
        try (InputStream from = found.openStream()) {
            Files.copy(from, copy, StandardCopyOption.REPLACE_EXISTING);
        }
        copy.toFile().setExecutable(true, true);
        return copy.toFile();
    }

    /** What both directions tell first. */
    static Map<String, Object> open(String kind, String name, BaseContext context, Object guarantees, Map<String, Object> configs,
                                    Map<String, Object> secrets) {
        Map<String, Object> resolved = new HashMap<>();
        if (secrets != null) {
            secrets.keySet().forEach(secret -> resolved.put(secret, context.getSecret(secret)));
        }
        Map<String, Object> open = new HashMap<>(Map.of("kind", kind, "tenant", context.getTenant(), "namespace", context.getNamespace(),
                "name", name, "instance", context.getInstanceId(), "configs", configs, "secrets", resolved));
        open.put("processingGuarantees", guarantees == null ? "ATLEAST_ONCE" : guarantees.toString());
        return open;
    }

    /** Asks it to finish what is under way. */
    void stop() {
        closing = true;
        if (out != null) {
            out.add(Frames.frame(Frames.STOP, body -> { }));
        }
    }

    /** Waits for its end, and ends it where it does not: the worker kills this JVM 10 s after it asked for its end. */
    void close() {
        closing = true;
        // Whoever stops a thread runtime interrupts it first.
        boolean interrupted = Thread.interrupted();
        Process ending = process;
        if (ending != null) {
            try {
                if (!ending.waitFor(6, TimeUnit.SECONDS)) {
                    ending.destroy();
                    ending.waitFor(2, TimeUnit.SECONDS);
                }
            } catch (InterruptedException e) {
                interrupted = true;
            } finally {
                ending.destroyForcibly();
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
