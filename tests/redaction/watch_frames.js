// Keeps each frame that the WHEP player with this index presents, as PNG, until the test takes it.
const [index] = arguments;
const watching = window.watching[index];
const canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [320, 180];
const context = canvas.getContext('2d');
watching.frames = [];
const keep = () => {
  context.drawImage(watching.video, 0, 0, 320, 180);
  watching.frames.push(canvas.toDataURL('image/png').split(',')[1]);
  watching.video.requestVideoFrameCallback(keep);
};
watching.video.requestVideoFrameCallback(keep);
return true;
